"""What a build comes to, before anything is written."""
