"""The book's own machinery: profiles, chapters as programs, the ledger, figures and sliders."""
