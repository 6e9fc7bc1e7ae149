;; A component for a version of the contract that no host serves.
(component
  (component $empty)
  (instance $enricher (instantiate $empty))
  (export "dossier:plugin/enricher@9.0.0" (instance $enricher)))
