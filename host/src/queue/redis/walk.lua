-- Walks through a stream with one field of each entry, and ends early after many bytes, so that a page of large ones blocks
-- nobody.
-- KEYS: stream
-- ARGV: first id (exclusive with a parenthesis), how many, bytes after which no more are read, the field
-- Gives {{id, whether it has the field, its value}…}; nothing at the end.
local out, bytes, from = {}, 0, ARGV[1]
local most, budget = tonumber(ARGV[2]), tonumber(ARGV[3])
while #out < most and bytes < budget do
  local found = redis.pcall('XRANGE', KEYS[1], from, '+', 'COUNT', 1)
  if found.err then return found end
  if not found[1] then break end
  local id, fields = found[1][1], found[1][2]
  local value = nil
  for i = 1, #fields, 2 do
    bytes = bytes + #fields[i + 1]
    if fields[i] == ARGV[4] and not value then value = fields[i + 1] end
  end
  out[#out + 1] = {id, value and 1 or 0, value or ''}
  from = '(' .. id
end
return out
