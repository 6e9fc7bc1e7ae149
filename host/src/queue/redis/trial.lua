-- Notes how often a suspect crashed a host while it ran alone, if this consumer still owns it. 0 takes the note away.
-- KEYS: stream, accused
-- ARGV: group, consumer, entry, crashes
local pending = redis.pcall('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1, ARGV[2])
if pending.err then return pending end
if #pending == 0 then return 0 end
local noted
if ARGV[4] == '0' then
  noted = redis.pcall('HDEL', KEYS[2], ARGV[3])
else
  noted = redis.pcall('HSET', KEYS[2], ARGV[3], ARGV[4])
end
if type(noted) == 'table' then return noted end
return 1
