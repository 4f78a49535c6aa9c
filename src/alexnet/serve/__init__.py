"""A trained run behind HTTP: the page that shows what the network sees, and the API behind it.

`app.make_app` puts it together, `server.serve` runs it. Nothing is stored: every request brings its
image, which lives in memory until it is answered, and no request ever writes a file.
"""
