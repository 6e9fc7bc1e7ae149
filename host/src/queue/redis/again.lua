-- Sends a stored alert through the pipeline again. Its record stays where it is; commit.lua puts another in its place.
-- KEYS: stream, store, again, the record's key of the index
-- ARGV: the record's entry in the store, what the alert replaces, alert, attempts, first seen, history
-- Gives 1; 2 when it is on its way already; 0 when the record is not that one any more; 3 when the key of the index is none.
local value = redis.pcall('GET', KEYS[4])
if type(value) == 'table' then
  if string.sub(value.err, 1, 9) == 'WRONGTYPE' then return 3 end
  return value
end
if value and not string.match(value, '^%S+ %S+ %S+ %S+$') then return 3 end
if value and string.match(value, '^%S+') ~= ARGV[1] then return 0 end
local found = redis.pcall('XRANGE', KEYS[2], ARGV[1], ARGV[1])
if found.err then return found end
if not found[1] then return 0 end
local before = redis.pcall('HGET', KEYS[3], ARGV[1])
if type(before) == 'table' then return before end
if before and #redis.call('XRANGE', KEYS[1], before, before) > 0 then return 2 end
local added = redis.pcall('XADD', KEYS[1], '*', 'alert', ARGV[3], 'dossier:attempts', ARGV[4], 'dossier:first_seen', ARGV[5],
  'dossier:history', ARGV[6], 'dossier:replace', ARGV[2])
if type(added) == 'table' then return added end
-- Without this note it would be sent twice, and the second one be a duplicate.
redis.pcall('HSET', KEYS[3], ARGV[1], added)
return 1
