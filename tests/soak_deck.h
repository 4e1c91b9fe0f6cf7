/* soak_deck.h - the layers of a soak, each with a call and the bits that it must give.
 *
 * A card is a layer of every class, format and policy in several sizes, or one out of a packed
 * file. Its reference outputs are computed first, on one thread, under each of the tables; they are
 * compared with double precision, so that what is repeated all day is right. */
#ifndef FP4MOE_SOAK_DECK_H
#define FP4MOE_SOAK_DECK_H

#include "layer_call.h"

/* Table 0 is refused, which leaves the static order; 1 has the C gemv rows for every card, 2 the
 * unpack and gemm rows of the highest ISA here. */
enum { SOAK_TABLES = 3, SOAK_CARDS = 48 };

typedef struct soak_card {
  char name[64];
  char packed[112]; /* the packed file that the layer is in; "": there is none */
  random_layer *weights;
  problem call;
  float *y[SOAK_TABLES];
} soak_card;

typedef struct soak_deck {
  size_t count;
  soak_card card[SOAK_CARDS];
  char directory[64], table[SOAK_TABLES][80];
  size_t workspace_bytes; /* enough for any card under any table */
} soak_deck;

/* Fails by check_fail. `data`: tests/data/layers. */
void soak_deck_open(soak_deck *deck, const char *data);
void soak_deck_close(soak_deck *deck);

/* The card's layer; of a packed file a map, or a copy. */
fp4moe_status soak_card_layer(const soak_card *card, fp4moe_context *context, int copy,
                              fp4moe_layer **layer);

/* A context whose table is one of the deck's. threads: 0 = of the machine. */
fp4moe_status soak_context(const soak_deck *deck, int table, size_t threads, fp4moe_context **ctx);

#endif
