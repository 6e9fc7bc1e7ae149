-- Takes new entries, a few at a time, until there are enough or they are large.
-- KEYS: stream
-- ARGV: group, consumer, how many, how many at a time, bytes after which no more are taken, the largest alert
-- Gives {server's time in ms, size of the largest, {entry…}}.
local out, bytes, largest = {}, 0, 0
local left, step, budget, max_size = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
while left > 0 and bytes < budget do
  local count = math.min(left, step)
  local reply = redis.pcall('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', count, 'STREAMS', KEYS[1], '>')
  if not reply then break end
  if reply.err then return reply end
  local entries = reply[1][2]
  for _, entry in ipairs(entries) do
    local told, size = describe(entry, max_size)
    out[#out + 1] = told
    bytes = bytes + size
    largest = math.max(largest, size)
  end
  if #entries < count then break end
  left = left - count
end
return {now_ms(), largest, out}
