package nexmark

import "encoding/binary"

// The codecs of results are like those of events.
type (
	DigestCodec struct{}
	EuroCodec   struct{}
	LocalCodec  struct{}
	SoldCodec   struct{}
	SaleCodec   struct{}
	HotCodec    struct{}
	StatsCodec  struct{}
	PairCodec   struct{}
)

func (DigestCodec) Append(dst []byte, d Digest) ([]byte, error) {
	return AppendNumbers(dst, d.Rows, d.Sum), nil
}

func (DigestCodec) Decode(b []byte) (d Digest, err error) {
	r := reader{b: b}
	d.Rows, d.Sum = r.number(), r.number()
	return d, r.texts()
}

func (EuroCodec) Append(dst []byte, e Euro) ([]byte, error) {
	return AppendNumbers(dst, e.Auction, e.Bidder, e.Price, e.At), nil
}

func (EuroCodec) Decode(b []byte) (e Euro, err error) {
	r := reader{b: b}
	e.Auction, e.Bidder, e.Price, e.At = r.number(), r.number(), r.number(), r.number()
	return e, r.texts()
}

func (LocalCodec) Append(dst []byte, l Local) ([]byte, error) {
	return appendTexts(AppendNumbers(dst, l.Auction), l.Name, l.City, l.State), nil
}

func (LocalCodec) Decode(b []byte) (l Local, err error) {
	r := reader{b: b}
	l.Auction = r.number()
	return l, r.texts(&l.Name, &l.City, &l.State)
}

// The bid of a Sold is what is behind its auction, whose length is before it.
func (SoldCodec) Append(dst []byte, s Sold) ([]byte, error) {
	dst = append(dst, 0, 0)
	from := len(dst)
	dst, err := AuctionCodec{}.Append(dst, s.Auction)
	if err != nil || len(dst)-from > 1<<16-1 {
		return dst, errEncoding
	}
	binary.BigEndian.PutUint16(dst[from-2:], uint16(len(dst)-from))
	return BidCodec{}.Append(dst, s.Bid)
}

func (SoldCodec) Decode(b []byte) (s Sold, err error) {
	if len(b) < 2 || int(binary.BigEndian.Uint16(b)) > len(b)-2 {
		return s, errEncoding
	}
	n := 2 + int(binary.BigEndian.Uint16(b))
	if s.Auction, err = (AuctionCodec{}).Decode(b[2:n]); err != nil {
		return s, err
	}
	s.Bid, err = BidCodec{}.Decode(b[n:])
	return s, err
}

func (SaleCodec) Append(dst []byte, s Sale) ([]byte, error) {
	return AppendNumbers(dst, s.Seller, s.Category, s.Expires, s.Price), nil
}

func (SaleCodec) Decode(b []byte) (s Sale, err error) {
	r := reader{b: b}
	s.Seller, s.Category, s.Expires, s.Price = r.number(), r.number(), r.number(), r.number()
	return s, r.texts()
}

func (HotCodec) Append(dst []byte, h Hot) ([]byte, error) {
	return AppendNumbers(AppendNumbers(dst, h.Bids), h.Auctions...), nil
}

func (HotCodec) Decode(b []byte) (h Hot, err error) {
	r := reader{b: b}
	h.Bids = r.number()
	for len(r.b) > 0 {
		h.Auctions = append(h.Auctions, r.number())
	}
	return h, r.texts()
}

func (StatsCodec) Append(dst []byte, s Stats) ([]byte, error) {
	return AppendNumbers(dst, s.Bids, s.Cheap, s.Middle, s.Dear, s.Min, s.Max, s.Sum), nil
}

func (StatsCodec) Decode(b []byte) (s Stats, err error) {
	r := reader{b: b}
	s.Bids, s.Cheap, s.Middle, s.Dear = r.number(), r.number(), r.number(), r.number()
	s.Min, s.Max, s.Sum = r.number(), r.number(), r.number()
	return s, r.texts()
}

// A Pair is 16 bytes, so that they are in the order of pairs.
func (PairCodec) Append(dst []byte, p Pair) ([]byte, error) {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(dst, uint64(p.Bidder)), uint64(p.Auction)), nil
}

func (PairCodec) Decode(b []byte) (Pair, error) {
	if len(b) != 16 {
		return Pair{}, errEncoding
	}
	return Pair{int64(binary.BigEndian.Uint64(b)), int64(binary.BigEndian.Uint64(b[8:]))}, nil
}
