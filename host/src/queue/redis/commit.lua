-- Stores alerts or puts them into the dead letters, and lets go of them: only of those that this consumer still owns.
-- A script that fails half-way undoes nothing, so each alert is added first, then indexed, and only then let go of; an
-- error ends the work, and what was done before it is told beside it. An error that is about one alert's own keys refuses this
-- alert alone.
-- KEYS: stream, store, dead letters, accused, ledger, again. Keys of the index and of notes are derived from ARGV[3] and [4]; they share
-- the stream's hash tag, so all of them are in one slot of a Cluster.
-- ARGV: group, consumer, prefix of the index, prefix of notes, life of the index in ms (0: for ever), retention of the
-- store in ms (0: for ever), life of a note in ms, then for each alert its entry and
--   'store', id, sha256, head, id in a conflict, head in a conflict, rest    or
--   'dead', id, sha256, id in a conflict, reason, step, attempts, first seen, letter, '' or the original bytes, for an entry
--   that was trimmed.
-- One that is to take the place of a record has before its entry: 'again', the record's entry in the store, the record's id, the record's
-- head, the alert as it stands in the record ('': as it stands in the stream).
-- Gives {{outcome…}, '' or the error that ended it, how many were done although their entry was gone from the stream}.
local stream, store, dlq, accused = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local group, consumer, index, notes, index_life, retention, note_life =
  ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6]), ARGV[7]

-- The last error of a command, and whether it is about one alert's own keys. (What pcall gives differs between versions.)
local problem, alone

-- What the server said, and to which command: of one that the user may not use it tells no name.
local function named(reply, command) return reply.err .. ' (' .. command .. ')' end

-- Like redis.call, but leaves the server's words alone in problem.
local function call(command, ...)
  local reply = redis.pcall(command, ...)
  if type(reply) == 'table' and reply.err then
    problem, alone = named(reply, command), false
    error('stopped', 0)
  end
  return reply
end

-- The same for a key that others do not need: where it holds something else, this alert alone is refused.
local function own(command, ...)
  local reply = redis.pcall(command, ...)
  if type(reply) == 'table' and reply.err then
    problem, alone = named(reply, command), string.sub(reply.err, 1, 9) == 'WRONGTYPE'
    error('stopped', 0)
  end
  return reply
end

-- Where an id is stored: entry in the store, sha256, entry in the queue, consumer.
local function look_up(id)
  local value = own('GET', index .. id)
  if not value then return nil end
  local at, sha, entry, by = string.match(value, '^(%S+) (%S+) (%S+) (%S+)$')
  if not at then
    -- Somebody else's value. Whether this alert is stored cannot be known, so it waits until it is removed.
    problem, alone = 'ERR the key ' .. index .. id .. ' holds no place of a record', true
    error('stopped', 0)
  end
  return {at = at, sha = sha, entry = entry, by = by}
end

-- Remembers where something was put. Where it cannot be, it is taken out again: the next try would put it there a second time.
local function remember(where, at, ...)
  local reply = redis.pcall('SET', ...)
  if type(reply) == 'table' and reply.err then
    redis.pcall('XDEL', where, at)
    problem, alone = named(reply, 'SET'), false
    error('stopped', 0)
  end
end

local function add(entry, id, sha, head, rest)
  local at = call('XADD', store, '*', 'id', id, 'record', head .. rest)
  local value = at .. ' ' .. sha .. ' ' .. entry .. ' ' .. consumer
  if index_life == '0' then
    remember(store, at, index .. id, value)
  else
    remember(store, at, index .. id, value, 'PX', index_life)
  end
end

local function put(entry, id, sha, head, other_id, other_head, rest)
  local there = look_up(id)
  if not there then
    add(entry, id, sha, head, rest)
    return 'stored'
  elseif there.sha == sha then
    return there.entry == entry and 'stored' or 'duplicate'
  end
  there = look_up(other_id)
  if not there then
    add(entry, other_id, sha, other_head, rest)
    return 'conflict'
  elseif there.sha == sha then
    return there.entry == entry and 'conflict' or 'duplicate'
  end
  return 'collision'
end

local function bury(entry, id, reason, step, attempts, first_seen, letter, body)
  -- A server that cannot be asked beforehand let an earlier try do this much and not let go of it.
  if not redis.acl_check_cmd and own('GET', notes .. entry) == consumer then return 'dead' end
  local found = call('XRANGE', stream, entry, entry)
  local fields = found[1] and found[1][2] or (body ~= '' and {'alert', body}) or nil
  if not fields then return 'gone' end
  local letter_fields = {'reason', reason, 'id', id, 'step', step, 'attempts', attempts, 'first_seen', first_seen,
    'dead', letter}
  local alert, others = nil, {}
  for i = 1, #fields, 2 do
    if fields[i] == 'alert' and not alert then
      alert = fields[i + 1]
    elseif fields[i] ~= 'dossier:attempts' and fields[i] ~= 'dossier:first_seen' and fields[i] ~= 'dossier:history'
      and fields[i] ~= 'dossier:replace' then
      others[#others + 1] = 'field:' .. fields[i]
      others[#others + 1] = fields[i + 1]
    end
  end
  -- A command of a script takes about 8,000 arguments; an entry may have more.
  if #others > 4000 then others = {'packed', cmsgpack.pack(others)} end
  for _, text in ipairs(others) do letter_fields[#letter_fields + 1] = text end
  if alert then
    letter_fields[#letter_fields + 1] = 'alert'
    letter_fields[#letter_fields + 1] = alert
  end
  -- What is to be stored goes on when the dead letters cannot be written.
  local at = own('XADD', dlq, '*', unpack(letter_fields))
  remember(dlq, at, notes .. entry, consumer, 'PX', note_life)
  return 'dead'
end

-- Whether a place in the store holds a record of this id and of this very alert; and whether it holds anything. Whoever may write into
-- the stream can say what an alert replaces, so it is looked at.
local function holds(at, id, alert)
  local found = call('XRANGE', store, at, at)
  if not found[1] then return false, false end
  local its, record = nil, ''
  local fields = found[1][2]
  for i = 1, #fields, 2 do
    if fields[i] == 'id' then its = fields[i + 1] elseif fields[i] == 'record' then record = fields[i + 1] end
  end
  return its == id and string.find(record, ',"alert":' .. alert .. ',"observables":', 1, true) ~= nil, true
end

-- The alert that an entry of the stream holds.
local function original(entry)
  local found = call('XRANGE', stream, entry, entry)
  local fields = found[1] and found[1][2] or {}
  for i = 1, #fields, 2 do
    if fields[i] == 'alert' then return fields[i + 1] end
  end
  return nil
end

-- An alert that is to take the place of a record. None when there is no such record, now or ever: then it is an alert as any other.
local function put_again(mark, entry, sha, rest)
  local alert = mark.alert ~= '' and mark.alert or original(entry)
  if not alert then return nil end
  local there = look_up(mark.id)
  if there and there.entry == entry then return 'replaced' end
  local is_it, is_there = holds(mark.at, mark.id, alert)
  if is_it and (not there or there.at == mark.at) then
    if not rest then
      call('SET', notes .. entry, consumer .. ' kept', 'PX', note_life)
      return 'kept'
    end
    add(entry, mark.id, there and there.sha or sha, mark.head, rest)
    call('XDEL', store, mark.at)
    return 'replaced'
  end
  -- The record was replaced meanwhile, or trimmed since.
  if there and ((there.at == mark.at and not is_there) or (holds(there.at, mark.id, alert))) then return 'duplicate' end
  return nil
end

-- As done_before, of an alert that is to take the place of a record.
local function done_again(mark, entry, kind, id, other_id)
  if #call('XPENDING', stream, group, entry, entry, 1) > 0 then return 'lost' end
  local by = own('GET', notes .. entry)
  if by and kind == 'dead' and by == consumer .. ' kept' then return 'kept' end
  if by then return kind == 'dead' and by == consumer and 'dead' or 'lost' end
  for as, its in pairs({replaced = mark.id, stored = id, conflict = other_id}) do
    local there = look_up(its)
    if there and there.entry == entry then
      if its == mark.id then as = 'replaced' end
      return kind == 'store' and there.by == consumer and as or 'lost'
    end
  end
  if #call('XRANGE', stream, entry, entry) > 0 then return 'lost' end
  return nil
end

-- What became of an alert that this consumer does not own any more: done by an earlier try whose reply was lost, or lost to
-- another. None when nobody has it and nobody did it: the stream was deleted, or a failover lost it. Then this host, which still
-- holds it, is the only place where it is.
local function done_before(entry, kind, id, sha, other_id)
  if #call('XPENDING', stream, group, entry, entry, 1) > 0 then return 'lost' end
  -- Whatever this host came to, another may have come to something else: stored here, buried there.
  local by = own('GET', notes .. entry)
  if by then return kind == 'dead' and by == consumer and 'dead' or 'lost' end
  local there, as = look_up(id), 'stored'
  if there and there.sha ~= sha then there, as = look_up(other_id), 'conflict' end
  if there and there.sha == sha then
    if there.entry ~= entry then return 'duplicate' end
    return kind == 'store' and there.by == consumer and as or 'lost'
  end
  -- The group was made again: the entry is read again.
  if #call('XRANGE', stream, entry, entry) > 0 then return 'lost' end
  return nil
end

local outcomes, finished, duplicates, kept, settled = {}, {}, 0, 0, {}

local function in_stream(entry) return #call('XRANGE', stream, entry, entry) > 0 end

local function let_go(entry, outcome)
  finished[#finished + 1] = entry
  -- One that is gone from the stream left it otherwise.
  if (outcome == 'duplicate' or outcome == 'kept') and in_stream(entry) then
    if outcome == 'kept' then kept = kept + 1 else duplicates = duplicates + 1 end
  end
end

local function one(mark, entry, kind, id, sha, ...)
  local outcome
  local other_id = select(kind == 'store' and 2 or 1, ...)
  if #call('XPENDING', stream, group, entry, entry, 1, consumer) == 0 then
    if mark then
      outcome = done_again(mark, entry, kind, id, other_id)
    else
      outcome = done_before(entry, kind, id, sha, other_id)
    end
    if outcome then
      -- At its end and still in the stream: the group was made again, or a server that cannot be asked beforehand did not remove it.
      if outcome ~= 'lost' and in_stream(entry) then
        let_go(entry, outcome)
        if mark then settled[#settled + 1] = mark.at end
      end
      return outcome
    end
  end
  if mark then outcome = put_again(mark, entry, sha, kind == 'store' and select(4, ...) or nil) end
  if outcome then
    settled[#settled + 1] = mark.at
  elseif kind == 'store' then
    outcome = put(entry, id, sha, ...)
  else
    outcome = bury(entry, id, select(2, ...))
  end
  if outcome ~= 'collision' and outcome ~= 'gone' then let_go(entry, outcome) end
  return outcome
end

-- Does all; gives the error that ended it, or ''.
local function work()
  local at = 8
  while at <= #ARGV do
    problem, alone = nil, true
    local mark = nil
    if ARGV[at] == 'again' then
      mark = {at = ARGV[at + 1], id = ARGV[at + 2], head = ARGV[at + 3], alert = ARGV[at + 4]}
      at = at + 5
    end
    local last = at + (ARGV[at + 1] == 'store' and 7 or 10)
    local fine, outcome = pcall(one, mark, unpack(ARGV, at, last))
    if not fine then
      if not alone then return problem end
      outcome = 'refused ' .. (problem or tostring(outcome))
    end
    outcomes[#outcomes + 1] = outcome
    at = last + 1
  end
  return ''
end

local command = forbidden({{'XACK', stream, group, '0-0'}, {'XDEL', stream, '0-0'}, {'XDEL', store, '0-0'}, {'XDEL', dlq, '0-0'}})
if command then
  return redis.error_reply('NOPERM the user may not take entries off ' .. command[2] .. ' (' .. command[1] .. ')')
end

local message, gone = work(), 0
if #finished > 0 then
  local acked = redis.pcall('XACK', stream, group, unpack(finished))
  if type(acked) == 'table' then return redis.error_reply(named(acked, 'XACK')) end
  local deleted = redis.pcall('XDEL', stream, unpack(finished))
  if type(deleted) == 'table' then return redis.error_reply(named(deleted, 'XDEL')) end
  gone = #finished - deleted
  redis.pcall('HDEL', accused, unpack(finished))
  if #settled > 0 then redis.pcall('HDEL', KEYS[6], unpack(settled)) end
  -- Streams count what is added to them; what is let go of and added nowhere is counted here, for `dossier verify --input`.
  if duplicates > 0 then redis.pcall('HINCRBY', KEYS[5], 'duplicates', duplicates) end
  if kept > 0 then redis.pcall('HINCRBY', KEYS[5], 'kept', kept) end
end
if retention > 0 then
  local time = redis.call('TIME')
  redis.pcall('XTRIM', store, 'MINID', '~', string.format('%.0f', time[1] * 1000 - retention))
end
return {outcomes, message, gone}
