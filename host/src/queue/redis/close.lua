-- Gives back what this consumer has pending and ends its lease. Each counter goes down by one, as whoever claims the entry raises it by
-- one: this delivery never was. Suspects stay suspects.
-- KEYS: stream, lease, accused
-- ARGV: group, consumer
-- Gives the entries that were trimmed while they were pending.
redis.call('DEL', KEYS[2])
local lost, from = {}, '-'
while true do
  local pending = redis.pcall('XPENDING', KEYS[1], ARGV[1], from, '+', 1000, ARGV[2])
  if pending.err then return pending end
  for _, entry in ipairs(pending) do
    local counter = math.max(entry[4] - 1, 0)
    local kept = redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, entry[1], 'RETRYCOUNT', counter, 'JUSTID')
    if #kept == 0 then
      lost[#lost + 1] = entry[1]
      redis.call('XACK', KEYS[1], ARGV[1], entry[1])
      redis.pcall('HDEL', KEYS[3], entry[1])
    end
    from = '(' .. entry[1]
  end
  if #pending < 1000 then break end
end
if #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) == 0 then
  redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
end
return lost
