"""The decoders that may read untrusted bytes, with FFmpeg's names.

FFmpeg has more than 500. Most of them are for formats of old games and programs; they are rarely tested and do not
occur in sports videos. The decoders here are those of cameras, phones, editing programs, broadcasts and video sites. To
accept another one, add it here.
"""

from __future__ import annotations

_VIDEO = """
h264 hevc vvc libdav1d av1 vp8 vp9 libvpx libvpx-vp9 mpeg1video mpeg2video mpegvideo mpeg4 mjpeg mjpegb h263 h263p
h263i flv vp6 vp6a vp6f msmpeg4v1 msmpeg4v2 msmpeg4 wmv1 wmv2 wmv3 vc1 theora svq1 svq3 dvvideo prores dnxhd cfhd
ffv1 huffyuv ffvhuff utvideo rawvideo v210 png qtrle jpeg2000
"""
_AUDIO = """
aac aac_latm mp1float mp2float mp3float mp1 mp2 mp3 ac3 eac3 dca truehd mlp opus libopus vorbis flac alac wavpack
wmav1 wmav2 wmapro wmalossless wmavoice amrnb amrwb libopencore_amrnb libopencore_amrwb speex nellymoser s302m gsm
gsm_ms adpcm_ima_wav adpcm_ima_qt adpcm_ms adpcm_swf pcm_alaw pcm_mulaw pcm_s8 pcm_u8 pcm_s16le pcm_s16be pcm_u16le
pcm_u16be pcm_s24le pcm_s24be pcm_s32le pcm_s32be pcm_f32le pcm_f32be pcm_f64le pcm_f64be pcm_s16le_planar
pcm_s16be_planar pcm_s24le_planar pcm_s32le_planar pcm_bluray pcm_dvd
"""
VIDEO_DECODERS = frozenset(_VIDEO.split())
AUDIO_DECODERS = frozenset(_AUDIO.split())
WHITELIST = ",".join(sorted(VIDEO_DECODERS | AUDIO_DECODERS))
"""Value of FFmpeg's option for the streams that it analyzes while it opens a file."""
