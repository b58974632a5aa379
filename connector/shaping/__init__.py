"""From events of any shape to events as the API takes them: decoding, mapping, and the stream's own Python."""
