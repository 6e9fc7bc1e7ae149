-- KEYS: sources
-- ARGV: how many there may be, for how long one is remembered in ms, names that were heard just now
-- Gives {server's time in ms, {name, time when it was heard, ...}}. When there is no more room, only those that are known are noted:
-- who invents names must not push out what is watched.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local most = tonumber(ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
local count = redis.call('ZCARD', KEYS[1])
for i = 3, #ARGV do
  if count < most then
    count = count + redis.call('ZADD', KEYS[1], now, ARGV[i])
  else
    redis.call('ZADD', KEYS[1], 'XX', now, ARGV[i])
  end
end
return {now, redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')}
