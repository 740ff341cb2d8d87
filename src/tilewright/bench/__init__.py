"""What Tilewright is worth beside the tools a user would pick instead: cases, peers, floors, tables."""
