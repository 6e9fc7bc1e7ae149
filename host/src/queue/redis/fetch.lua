-- Reads entries that this consumer has pending already; their delivery counters stay as they are.
-- KEYS: stream, accused
-- ARGV: group, consumer, bytes after which no more are read, the largest alert, entry ids…
-- Gives {server's time in ms, size of the largest, {entry…}}: as many as were looked at.
local out, bytes, largest = {}, 0, 0
local budget, max_size = tonumber(ARGV[3]), tonumber(ARGV[4])
for i = 5, #ARGV do
  if bytes >= budget then break end
  local id = ARGV[i]
  local pending = redis.pcall('XPENDING', KEYS[1], ARGV[1], id, id, 1, ARGV[2])
  if pending.err then return pending end
  if #pending == 0 then
    out[#out + 1] = {id, 'done', '', '', '', '0'}
  else
    local entries = redis.call('XRANGE', KEYS[1], id, id)
    if #entries == 0 then
      redis.call('XACK', KEYS[1], ARGV[1], id)
      redis.pcall('HDEL', KEYS[2], id)
      out[#out + 1] = {id, 'gone', '', '', '', '0'}
    else
      local crashes = redis.pcall('HGET', KEYS[2], id)
      if type(crashes) == 'table' then return crashes end
      local told, size = describe(entries[1], max_size)
      if crashes then
        if #told == 2 then told = {id, 'alert', told[2], '', '', '0'} end
        told[6] = crashes
      end
      out[#out + 1] = told
      bytes = bytes + size
      largest = math.max(largest, size)
    end
  end
end
return {now_ms(), largest, out}
