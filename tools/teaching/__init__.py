"""What a teacher gets: slides, worksheets, a course, photographs; one job a file."""
