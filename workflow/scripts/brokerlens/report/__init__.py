"""The report: what the data sets say, as one HTML page that opens offline.

``page.write`` is the way in. It reads the data sets (``results``), lets each section's module make its sentences, tables and
charts, and renders them with the templates. Nothing here looks at packets, and no figure is estimated here that ``statistics`` or
a data set could give.
"""
