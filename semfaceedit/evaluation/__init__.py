"""What `evaluate` measures: one file a question, over pictures that are generated once.

`session` holds what is evaluated and the results that are already there; `distances` and
`reprojection` are pure functions with known answers; the other files are the questions.
"""
