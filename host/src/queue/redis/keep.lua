-- Renews this consumer's lease, and the idle time of what it has had in flight for long.
-- KEYS: stream, lease
-- ARGV: group, consumer, lease in ms, idle time in ms from which on it is renewed, the mark that this renewal leaves, and those
-- that earlier ones left. A renewal whose reply was lost is repeated with the same mark, and a failover or a restart may bring an
-- earlier one back: a lease with any other is renewed by another host of the same name.
-- Gives {the mark that stands, {entries that were trimmed while they were pending…}}. Such entries are left as they are: an alert
-- that the host still holds can be stored all the same.
local mark, ours = redis.call('GET', KEYS[2]), false
for i = 5, #ARGV do ours = ours or ARGV[i] == mark end
if mark and not ours then return {mark, {}} end
local set = redis.pcall('SET', KEYS[2], ARGV[5], 'PX', ARGV[3])
if set.err then
  -- A server that is out of memory refuses SET, but not PEXPIRE: a lease must not end because of that.
  if redis.call('PEXPIRE', KEYS[2], ARGV[3]) == 0 then return set end
else
  mark = ARGV[5]
end
local pending = redis.pcall('XPENDING', KEYS[1], ARGV[1], 'IDLE', ARGV[4], '-', '+', 1000, ARGV[2])
if pending.err then return pending end
local gone = {}
for _, entry in ipairs(pending) do
  if #redis.call('XRANGE', KEYS[1], entry[1], entry[1]) == 0 then
    gone[#gone + 1] = entry[1]
  else
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, entry[1], 'JUSTID')
  end
end
return {mark, gone}
