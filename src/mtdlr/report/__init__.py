"""What people see: tables, figures, documents and pages. Nothing is computed here but how it looks."""
