"""A proxy as a process, or as several: started, told anew, watched, stopped."""
