"""The comparison report: collect the parts, write one HTML file, a JSON twin and a Markdown twin."""
