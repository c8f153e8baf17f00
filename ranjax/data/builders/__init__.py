"""tensorflow-datasets builders: what turns a source into prepared array_record files."""
