"""From the streams of the recipe `shots` to shots, their kinds, replays, routines and clips. Opens no video."""
