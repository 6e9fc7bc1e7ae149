-- What the streams have counted since they are there.
-- KEYS: stream, store, dead letters, ledger
-- Gives {entries ever added to the stream, entries in it, ever added to the store, ever added to the dead letters,
-- duplicates, what was to be enriched anew and failed}. A server before 7.0 does not count, and that is an error.
local counted = {}
for i = 1, 3 do
  counted[i] = {added = 0, length = 0}
  if redis.call('EXISTS', KEYS[i]) == 1 then
    local flat = redis.pcall('XINFO', 'STREAM', KEYS[i])
    if flat.err then return flat end
    local info = {}
    for j = 1, #flat, 2 do info[flat[j]] = flat[j + 1] end
    if not info['entries-added'] then return redis.error_reply('ERR this needs Redis 7.0 or later, whose streams count') end
    counted[i] = {added = info['entries-added'], length = info['length']}
  end
end
local ledger = {}
for i, field in ipairs({'duplicates', 'kept'}) do
  ledger[i] = redis.pcall('HGET', KEYS[4], field)
  if type(ledger[i]) == 'table' then return ledger[i] end
end
return {counted[1].added, counted[1].length, counted[2].added, counted[3].added, ledger[1] or '0', ledger[2] or '0'}
