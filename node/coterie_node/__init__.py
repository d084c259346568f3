"""The node room: the glue between learners and chain at one site."""
