/* run_nodes.c - where a layer's weights are (run.h): of each memory node the bytes of the pages
 * that lie there, as the system says it, not as they were asked for. */
#include <stdio.h>

#include "layer.h"
#include "run.h"

json_t *run_nodes(const fp4moe_layer *layer) {
  enum { MOST = 64 };
  fp4moe_node_bytes nodes[MOST];
  size_t count = 0;
  json_t *list = json_array();
  require(fp4moe_layer_nodes(layer, nodes, MOST, &count), NULL);
  for (size_t i = 0; i < count && i < MOST; i++) {
    if (!nodes[i].there) continue;
    json_t *node = nodes[i].node < 0 ? json_null() : json_integer(nodes[i].node);
    json_append(list, json_pack("{so sI}", "node", node, "bytes", (json_int_t)nodes[i].there));
  }
  return list;
}

void run_print_nodes(const fp4moe_layer *layer) {
  json_t *list = run_nodes(layer);
  printf("weights: %zu shard%s", layer->shards, layer->shards == 1 ? "" : "s");
  for (size_t i = 0; i < json_array_size(list); i++) {
    const json_t *entry = json_array_get(list, i), *node = json_object_get(entry, "node");
    double mb = (double)json_integer_value(json_object_get(entry, "bytes")) * 1e-6;
    if (json_is_integer(node))
      printf("; node %d: %.3f MB", (int)json_integer_value(node), mb);
    else
      printf("; on nodes that the system does not tell: %.3f MB", mb);
  }
  printf("\n");
  json_decref(list);
}
