-- The first of these commands that the user may not use, if there is one: whoever may add and not let go, or not take back, must add
-- nothing. A server before 7.0 cannot be asked, so there nothing is known. Of a command that was renamed away it raises an error.
local function forbidden(commands)
  for _, command in ipairs(redis.acl_check_cmd and commands or {}) do
    local known, allowed = pcall(redis.acl_check_cmd, unpack(command))
    if not known or not allowed then return command end
  end
  return nil
end

