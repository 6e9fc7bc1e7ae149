-- Moves a dead letter back into the queue, with its attempts and its history.
-- KEYS: stream, dead letters
-- ARGV: id of the dead letter, its history or ''
-- Gives 1, or 0 when it is gone already.
local found = redis.pcall('XRANGE', KEYS[2], ARGV[1], ARGV[1])
if found.err then return found end
if not found[1] then return 0 end
local fields, entry, past = found[1][2], {}, {}
local function keep(name, value, where)
  where = where or entry
  where[#where + 1] = name
  where[#where + 1] = value
end
for i = 1, #fields, 2 do
  local name, value = fields[i], fields[i + 1]
  if name == 'alert' then keep('alert', value)
  elseif string.sub(name, 1, 6) == 'field:' then keep(string.sub(name, 7), value)
  elseif name == 'packed' then
    return redis.error_reply('ERR dead letter ' .. ARGV[1] .. ' has more fields than a script can add; add it yourself')
  elseif name == 'attempts' then keep('dossier:attempts', value, past)
  elseif name == 'first_seen' then keep('dossier:first_seen', value, past) end
end
if ARGV[2] ~= '' then keep('dossier:history', ARGV[2], past) end
if #entry == 0 then return redis.error_reply('ERR dead letter ' .. ARGV[1] .. ' holds no alert') end
for _, text in ipairs(past) do entry[#entry + 1] = text end
local added = redis.pcall('XADD', KEYS[1], '*', unpack(entry))
if type(added) == 'table' and added.err then return added end
redis.call('XDEL', KEYS[2], ARGV[1])
return 1
