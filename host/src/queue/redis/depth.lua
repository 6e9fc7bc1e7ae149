-- KEYS: stream, store, dead letters
-- ARGV: group
-- Gives {entries, pending, stored, dead, server's time in ms, id of the oldest entry or ''}.
local pending = redis.pcall('XPENDING', KEYS[1], ARGV[1])
if pending.err then return pending end
local lengths = {}
for i = 1, 3 do
  lengths[i] = redis.pcall('XLEN', KEYS[i])
  if type(lengths[i]) == 'table' then return lengths[i] end
end
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)
local time = redis.call('TIME')
return {lengths[1], pending[1], lengths[2], lengths[3], time[1] * 1000 + math.floor(time[2] / 1000),
  first[1] and first[1][1] or ''}
