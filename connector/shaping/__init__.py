"""From records of any form to events as the API accepts them: decoding, transforms, mapping."""
