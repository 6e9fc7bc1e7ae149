;; A component whose enricher has none of the functions that it should have.
(component
  (component $empty)
  (instance $enricher (instantiate $empty))
  (export "dossier:plugin/enricher@1.0.0" (instance $enricher)))
