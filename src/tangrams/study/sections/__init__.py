"""The sections of a study, one file each: ``measure(material)`` returns the section's numbers for study.json."""
