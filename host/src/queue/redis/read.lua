-- Takes new entries, a few at a time, until there are enough or they are large: what a reply will weigh is known only when the
-- server has made it, so no reply may hold more than a few that are large. After one that is, they are taken one at a time.
-- KEYS: stream
-- ARGV: group, consumer, how many, bytes after which no more are taken, the largest alert, how many at a time, how large a large one is
-- Gives {server's time in ms, size of the largest, {entry…}}.
local out, bytes, largest = {}, 0, 0
local left, budget, max_size = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local few, large = tonumber(ARGV[6]), tonumber(ARGV[7])
while left > 0 and bytes < budget do
  local count = largest < large and math.min(few, left) or 1
  local reply = redis.pcall('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', count, 'STREAMS', KEYS[1], '>')
  if not reply then break end
  if reply.err then return reply end
  local entries = reply[1][2]
  for i = 1, #entries do
    local told, size = describe(entries[i], max_size)
    out[#out + 1] = told
    bytes = bytes + size
    if size > largest then largest = size end
  end
  left = left - #entries
  if #entries < count then break end
end
return {now_ms(), largest, out}
