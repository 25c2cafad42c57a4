"""From folders of audio to the segments of a step."""
