-- Takes new entries one at a time, until there are enough or they are large: what a reply will weigh is known only when the
-- server has made it, so no reply may hold more than one that is large.
-- KEYS: stream
-- ARGV: group, consumer, how many, bytes after which no more are taken, the largest alert
-- Gives {server's time in ms, size of the largest, {entry…}}.
local out, bytes, largest = {}, 0, 0
local left, budget, max_size = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
while left > 0 and bytes < budget do
  local reply = redis.pcall('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', 1, 'STREAMS', KEYS[1], '>')
  if not reply then break end
  if reply.err then return reply end
  local told, size = describe(reply[1][2][1], max_size)
  out[#out + 1] = told
  bytes = bytes + size
  largest = math.max(largest, size)
  left = left - 1
end
return {now_ms(), largest, out}
