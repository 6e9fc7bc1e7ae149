;; A component that wants what no host has.
(component (import "evil:corp/exec@1.0.0" (instance (export "run" (func (param "command" string))))))
