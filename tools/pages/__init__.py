"""What the book's pages state of ``results/``: one module a group of tables; ``tools/fill_results.py`` puts them in."""
