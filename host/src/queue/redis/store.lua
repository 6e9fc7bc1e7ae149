-- The usual commit, and the cheap one: alerts that this consumer owns and whose ids nobody knows are added to the store, indexed, and
-- then let go of. What is not so, or cannot be done, is left as it was for commit.lua, which has all the rules and tells why.
-- A string costs Lua time for each of its bytes: so a record comes whole and is never joined or read back, and what only a conflict
-- needs does not come at all.
-- KEYS: stream, store. Keys of the index are derived from ARGV[3]; they share the stream's hash tag.
-- ARGV: group, consumer, prefix of the index, life of the index in ms (0: for ever), retention of the store in ms (0: for ever), then for
-- each alert its entry, id, sha256 and record. No id is there twice.
-- Gives {how many were done although their entry was gone from the stream, the place of each that is left, from 1…}.
local stream, store, group, consumer, index = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3]
local life, retention, call = ARGV[4], tonumber(ARGV[5]), redis.pcall
local count = (#ARGV - 5) / 4

local function failed(reply) return type(reply) == 'table' and reply.err end

local allowed = not forbidden({{'XACK', stream, group, '0-0'}, {'XDEL', stream, '0-0'}, {'XDEL', store, '0-0'}})

-- Which of them this consumer owns. What it has pending after one is mostly the next of them, when they are in the stream's order: so
-- several are asked for together, and more each time that this was so. In another order it takes longer, no more.
local owned, at, together = {}, 1, 8
while allowed and at <= count do
  local first = at
  together = math.min(together, count - at + 1)
  local pending = call('XPENDING', stream, group, ARGV[4 * at + 2], '+', together, consumer)
  if failed(pending) then break end
  for i = 1, #pending do
    if pending[i][1] == ARGV[4 * at + 2] then
      owned[at] = true
      at = at + 1
    end
  end
  together = at - first == together and 2 * together or 1
  if at == first then at = at + 1 end
end

local keys, left, finished = {}, {}, {}
for i = 1, count do keys[i] = index .. ARGV[4 * i + 3] end
local all_new = call('EXISTS', unpack(keys)) == 0

local function add(i)
  if not owned[i] or not (all_new or call('EXISTS', keys[i]) == 0) then return false end
  local place = call('XADD', store, '*', 'id', ARGV[4 * i + 3], 'record', ARGV[4 * i + 5])
  if failed(place) then return false end
  local value, set = place .. ' ' .. ARGV[4 * i + 4] .. ' ' .. ARGV[4 * i + 2] .. ' ' .. consumer, nil
  if life == '0' then
    set = call('SET', keys[i], value)
  else
    set = call('SET', keys[i], value, 'PX', life)
  end
  if failed(set) then call('XDEL', store, place) end
  return not failed(set)
end

for i = 1, count do
  if add(i) then
    finished[#finished + 1] = ARGV[4 * i + 2]
  else
    left[#left + 1] = i
  end
end
local gone = 0
if #finished > 0 then
  local acked = call('XACK', stream, group, unpack(finished))
  local deleted = not failed(acked) and call('XDEL', stream, unpack(finished))
  if not deleted or failed(deleted) then
    -- They are in the index now: commit.lua knows them by it, and tells what is wrong.
    left = {}
    for i = 1, count do left[i] = i end
  else
    gone = #finished - deleted
  end
end
if retention > 0 then
  local time = redis.call('TIME')
  call('XTRIM', store, 'MINID', '~', string.format('%.0f', time[1] * 1000 - retention))
end
return {gone, unpack(left)}
