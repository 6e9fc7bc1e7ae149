-- Read before read.lua and fetch.lua: what the host is told of an entry, and the server's time.
-- One that is nothing but an alert is {id, alert}; any other is {id, what, value, attempts, first seen, crashes}; only what
-- was replayed or is to be enriched anew has a history after that, only the latter what it replaces, and only what is part of a trace its
-- context at the end. The body of an entry that is too large stays here; its size goes instead.
local function describe(entry, max_size)
  local fields, names = entry[2], {}
  if #fields == 2 and fields[1] == 'alert' and #fields[2] <= max_size then
    entry[2] = fields[2]
    return entry, #entry[2]
  end
  local alert, attempts, first_seen, history, replaces, trace, size = nil, '', '', nil, nil, nil, 0
  for i = 1, #fields, 2 do
    local name, value = fields[i], fields[i + 1]
    size = size + #name + #value
    if name == 'alert' and not alert then
      alert = value
    elseif name == 'dossier:attempts' then
      attempts = value
    elseif name == 'dossier:first_seen' then
      first_seen = value
    elseif name == 'dossier:history' then
      -- No more than is read of it and one byte, so that the host sees that it is too large.
      history = string.sub(value, 1, 65537)
    elseif name == 'dossier:replace' then
      replaces = string.sub(value, 1, 65537)
      history = history or ''
    elseif name == 'traceparent' then
      -- Longer than any version has it, and it is none.
      if #value <= 256 then trace = value end
    elseif #names < 10 then
      names[#names + 1] = string.sub(name, 1, 40)
    end
  end
  if not alert then
    return {entry[1], 'no-alert', table.concat(names, ', '), attempts, first_seen, '0', history, replaces}, size
  end
  if #alert > max_size then
    return {entry[1], 'too-large', string.format('%d', #alert), attempts, first_seen, '0', history, replaces}, size
  end
  if trace then return {entry[1], 'alert', alert, attempts, first_seen, '0', history or '', replaces or '', trace}, size end
  return {entry[1], 'alert', alert, attempts, first_seen, '0', history, replaces}, size
end

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
