-- Takes over what consumers without a lease have pending, and removes those that have nothing left.
-- The counter of each entry goes up by one: from 0 (given back at a clean shutdown) to 1, otherwise above 1: a suspect.
-- KEYS: stream, accused
-- ARGV: group, consumer, prefix of leases (same hash tag as the stream), how many entries at most
-- Gives {{{consumer, entries taken}…}, {entries that were trimmed while they were pending…}}.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return redis.error_reply('NOGROUP the stream ' .. KEYS[1] .. ' does not exist')
end
-- A host without a lease of its own would be robbed as soon as it has robbed.
if redis.call('EXISTS', ARGV[3] .. ARGV[2]) == 0 then return {{}, {}} end
local consumers = redis.pcall('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])
if consumers.err then return consumers end
local from, lost, left = {}, {}, tonumber(ARGV[4])
for _, flat in ipairs(consumers) do
  local info = {}
  for i = 1, #flat, 2 do info[flat[i]] = flat[i + 1] end
  if info.name ~= ARGV[2] and redis.call('EXISTS', ARGV[3] .. info.name) == 0 then
    local remaining, taken = info.pending, 0
    if remaining > 0 and left > 0 then
      for _, entry in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', left, info.name)) do
        local id, counter = entry[1], entry[4]
        local got = redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, id, 'RETRYCOUNT', counter + 1, 'JUSTID')
        if #got == 0 then
          lost[#lost + 1] = id
          redis.call('XACK', KEYS[1], ARGV[1], id)
          redis.pcall('HDEL', KEYS[2], id)
        else
          taken = taken + 1
        end
        remaining = remaining - 1
        left = left - 1
      end
    end
    if taken > 0 then from[#from + 1] = {info.name, taken} end
    if remaining == 0 then redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], info.name) end
  end
end
return {from, lost}
