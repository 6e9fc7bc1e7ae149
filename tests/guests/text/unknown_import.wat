;; A component that wants what no host has.
(component
  (import "evil:corp/exec@1.0.0" (instance (export "run" (func (param "command" string)))))
  (component $none)
  (instance $enricher (instantiate $none))
  (export "dossier:plugin/enricher@1.0.0" (instance $enricher)))
