;; A component that wants a function that the contract does not have.
(component (import "dossier:plugin/log@1.0.0" (instance (export "shout" (func (param "message" string))))))
