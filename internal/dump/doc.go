// Package dump prints the files of a log as they lie: segments, frames, end marks,
// batches, records, indexes, the checkpoint. It reads and never writes, takes no
// lock, and works beside a live writer: it sees what was there when each file was
// opened. At damage it says what is wrong and goes on at the next whole frame.
//
//	checkpoint: log 8f..., start 0, durable to byte 4096 of segment 0, ...
//	segment 00000000000000000000.log: log 8f..., tag 3c..., base offset 0, ...
//	  frame at 128: 176 bytes, data, offsets 0-2, index 1, epoch 0
//	    batch 0-2: 3 records, 128 bytes, no compression, ...
//	      record 0: 2026-01-02T03:04:05.678Z key "ann" value "450"
//	  DAMAGE at 304 to 412: payload checksum is wrong
//	  end at 1024
//
// In JSON each line is one object; its "type" is one of checkpoint, segment, frame,
// mark, batch, record, index, damage, end and total. Offsets, times in milliseconds
// and positions are numbers; keys and values are strings, or base64 under
// "key_base64" and "value_base64" where they are not UTF-8; null is null.
package dump
