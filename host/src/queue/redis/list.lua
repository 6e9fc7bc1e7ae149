-- Lists dead letters without their bodies, and ends early after many bytes, so that a page of large ones blocks nobody.
-- KEYS: dead letters
-- ARGV: first id (exclusive with a parenthesis), how many
-- Gives {{{id, letter, reason, size}…}, whether there may be more}.
local out, bytes, from = {}, 0, ARGV[1]
while #out < tonumber(ARGV[2]) do
  if bytes > 64 * 1024 * 1024 then return {out, 1} end
  local found = redis.pcall('XRANGE', KEYS[1], from, '+', 'COUNT', 1)
  if found.err then return found end
  if not found[1] then return {out, 0} end
  local id, fields = found[1][1], found[1][2]
  local letter, reason, alert, others = '', '', nil, 0
  for i = 1, #fields, 2 do
    local name, value = fields[i], fields[i + 1]
    if name == 'dead' then letter = value
    elseif name == 'reason' then reason = value
    elseif name == 'alert' then alert = #value
    elseif name == 'packed' or string.sub(name, 1, 6) == 'field:' then others = others + #value end
    bytes = bytes + #value
  end
  out[#out + 1] = {id, letter, reason, alert or others}
  from = '(' .. id
end
return {out, 1}
