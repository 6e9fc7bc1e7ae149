-- An entry that is short enough, and how long it still lives, in milliseconds.
-- KEYS: the entry. ARGV: the longest entry, in bytes.
if redis.call('STRLEN', KEYS[1]) > tonumber(ARGV[1]) then
    return false
end
local entry = redis.call('GET', KEYS[1])
if not entry then
    return false
end
return { entry, redis.call('PTTL', KEYS[1]) }
