;; A component that wants a function that the contract does not have.
(component
  (import "dossier:plugin/log@1.0.0" (instance (export "shout" (func (param "message" string)))))
  (component $none)
  (instance $enricher (instantiate $none))
  (export "dossier:plugin/enricher@1.0.0" (instance $enricher)))
