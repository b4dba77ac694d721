"""Shots, their kinds, replays, routines and clips from the streams of the recipe `shots`, without opening videos."""
