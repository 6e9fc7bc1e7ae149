-- KEYS: stream, store, dead letters
-- ARGV: group, what stands before a consumer's name in the key of its lease
-- Gives {entries, in flight, stored, dead, server's time in ms, id of the oldest entry or ''}. What is pending at a host
-- that gave up its lease is in nobody's hands: it waits to be claimed.
local pending = redis.pcall('XPENDING', KEYS[1], ARGV[1])
if pending.err then return pending end
local in_flight = 0
for _, consumer in ipairs(pending[4] or {}) do
  if redis.call('EXISTS', ARGV[2] .. consumer[1]) == 1 then in_flight = in_flight + tonumber(consumer[2]) end
end
local lengths = {}
for i = 1, 3 do
  lengths[i] = redis.pcall('XLEN', KEYS[i])
  if type(lengths[i]) == 'table' then return lengths[i] end
end
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)
local time = redis.call('TIME')
return {lengths[1], in_flight, lengths[2], lengths[3], time[1] * 1000 + math.floor(time[2] / 1000),
  first[1] and first[1][1] or ''}
