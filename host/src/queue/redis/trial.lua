-- Notes how often the process of a suspect died while it ran alone, if this consumer still owns it.
-- KEYS: stream, accused
-- ARGV: group, consumer, entry, crashes
local pending = redis.pcall('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1, ARGV[2])
if pending.err then return pending end
if #pending == 0 then return 0 end
local noted = redis.pcall('HSET', KEYS[2], ARGV[3], ARGV[4])
if type(noted) == 'table' then return noted end
return 1
